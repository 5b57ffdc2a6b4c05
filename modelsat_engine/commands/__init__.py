"""The commands of `modelsat`, one file each; cli.py imports a command only when it is asked for."""
