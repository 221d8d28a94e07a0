# pragma version 0.4.3
# A token that calls somebody back in the middle of every transfer, and counts what came of it.
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
target: public(address)
data: public(Bytes[2048])
tries: public(uint256)
successes: public(uint256)

@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount

@external
def arm(target: address, data: Bytes[2048]):
    self.target = target
    self.data = data

@external
def approve_own(spender: address, amount: uint256):
    self.allowance[self][spender] = amount

@external
def poke():
    self._call_back()

@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True

@internal
def _call_back():
    if self.target != empty(address):
        self.tries += 1
        if raw_call(self.target, self.data, revert_on_failure=False):
            self.successes += 1

@external
def transfer(to: address, amount: uint256) -> bool:
    self._call_back()
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
    return True

@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    self._call_back()
    self.allowance[sender][msg.sender] -= amount
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    return True
