"""What runs INSIDE a virtual node: its agent, the remote-shell client, the wrapper of a rank.

Standard library and Python 3.8 only: it runs where nothing can be installed. The files are run
by path (``python -I -S agent.py``), so each adds its package's parent folder to ``sys.path``.
"""
