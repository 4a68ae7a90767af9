"""The verifier: proves at load time that a program keeps the contract of `docs/verifier.md`."""

from devbc.verifier.policy import DEFAULT, Policy
from devbc.verifier.verify import verify_handler, verify_program

__all__ = ["DEFAULT", "Policy", "verify_handler", "verify_program"]
