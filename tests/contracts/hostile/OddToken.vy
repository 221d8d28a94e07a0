# pragma version 0.4.3
# A token with an old one's habits: no answers, and an allowance must be zero before it is set.
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
# 1: zero cannot be approved, and the try burns all gas; 2: nothing may be approved to `whom`;
# 3: sends nothing, without a word; 4: takes nothing, without a word; 5: approving and sending
# burn all gas
how: public(uint256)
whom: public(address)

@external
def behave(how: uint256, whom: address):
    self.how = how
    self.whom = whom

@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount

@external
def approve(spender: address, amount: uint256):
    assert self.how != 5, UNREACHABLE
    if self.how == 1:
        assert amount != 0, UNREACHABLE
    if self.how == 2:
        assert spender != self.whom
    assert amount == 0 or self.allowance[msg.sender][spender] == 0
    self.allowance[msg.sender][spender] = amount

@external
def transfer(to: address, amount: uint256):
    assert self.how != 5, UNREACHABLE
    if self.how == 3:
        return
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount

@external
def transferFrom(sender: address, to: address, amount: uint256):
    if self.how == 4:
        return
    self.allowance[sender][msg.sender] -= amount
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
