# pragma version 0.4.3
# A token that refuses one receiver: by a revert, by an answer, or by burning all gas it is given.
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
refused: public(address)
how: public(uint256)  # 0 revert, 1 answer no, 2 burn gas

@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount

@external
def refuse(who: address, how: uint256):
    self.refused = who
    self.how = how

@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True

@external
def transfer(to: address, amount: uint256) -> bool:
    if to == self.refused:
        assert self.how != 0
        if self.how == 2:
            for at: uint256 in range(100_000):
                self.balanceOf[self] = at
        return False
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
    return True

@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    self.allowance[sender][msg.sender] -= amount
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    return True
