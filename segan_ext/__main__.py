from segan_ext.cli import main

main(prog_name="python -m segan_ext")
