"""The only modules that touch the kernel and its daemons: they make the nouns of `topology` true, and say what
they find.
"""
