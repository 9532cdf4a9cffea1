"""For nbdev_docs (settings.ini: `procs = docs_procs:default_exp_`, with .ci on PYTHONPATH): the page keeps its definitions, without the cell that names its module."""


def default_exp_(cell, *args):
    "Drop the cell `#| default_exp ...`, which is no code"
    del cell['source']
