"""What ``cli.py`` is made of: the commands, what they share and what they show."""
