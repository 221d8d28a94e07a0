"""Package `keeper.drill`: every account of a copy, liquidated before the day it matters."""
