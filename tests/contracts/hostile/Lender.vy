# pragma version 0.4.3
# A lending pool as Aave v3 repays: it takes what is owed, at most what is given. Or it does not.
from ethereum.ercs import IERC20

debts: public(HashMap[address, HashMap[address, uint256]])  # token -> debtor
how: public(uint256)  # 0 honest, else see repay
target: public(address)
data: public(Bytes[1024])
successes: public(uint256)

@external
def lend(token: address, debtor: address, amount: uint256):
    self.debts[token][debtor] += amount

@external
def behave(how: uint256, target: address, data: Bytes[1024]):
    self.how = how
    self.target = target
    self.data = data

@external
def repay(token: address, amount: uint256, mode: uint256, debtor: address) -> uint256:
    assert mode == 2
    debt: uint256 = self.debts[token][debtor]
    assert debt != 0, "39"  # as Aave says
    taken: uint256 = min(amount, debt)
    if self.how == 1:  # a paused reserve
        raise "29"
    if self.how == 2:  # all the gas there is
        assert debt == 0, UNREACHABLE
    if self.how == 3:  # says it did, and took nothing
        return taken
    if self.how == 4:  # a part, and says nothing
        taken = taken // 2
    if self.how == 5:  # calls somebody first
        if raw_call(self.target, self.data, revert_on_failure=False):
            self.successes += 1
    if self.how == 8:  # gives
        assert extcall IERC20(token).transfer(msg.sender, 1, default_return_value=True)
        return 0
    if self.how == 7:  # works as long as a real one never does
        start: uint256 = msg.gas
        for at: uint256 in range(100_000):
            if start - msg.gas > 900_000:
                break
    if self.how == 6:  # wants more than it was given
        assert extcall IERC20(token).transferFrom(msg.sender, self, amount + 1)
    self.debts[token][debtor] = debt - taken
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, taken, default_return_value=True
    )
    return 0 if self.how == 4 else taken
