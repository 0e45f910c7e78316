"""`python -m harkara` is the same as `harkara`."""

from harkara.cli import main

main(prog_name="harkara")
