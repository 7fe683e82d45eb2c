"""From an ``EnvironmentSpec`` to an interpreter: resolve, build once, share between runs.

``build.ensure`` is the way in. ``catalog`` knows which packages stand for which framework version,
``resolve`` makes a lock of them, ``horovod`` compiles the one package that has no wheel, ``cache``
is the folder all of it lives in.
"""
