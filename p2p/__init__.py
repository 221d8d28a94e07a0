"""Agreement among keepers: it agrees on bytes that an application proposed and checked."""
