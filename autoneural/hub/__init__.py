"""Models of others: fetched from a hub, checked, and turned into checkpoints of ours.

download.py, cache.py    pull, list, rm, clean
folder.py, reading.py    a folder read without trust; typed values of its config.json
lfm2.py, lfm2_vl.py, mobilenetv5.py    one architecture each: configuration and names in ours
importers.py             which of them reads a folder; import
assemble.py              two parts and a new connector make a model
"""
