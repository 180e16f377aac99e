"""Reads SageMaker's data-capture files and compares the answers in them.

agreement  compares the answers of two variants and counts how many agree
answers    parses captured bodies into values and measures their differences field by field
folders    lists the capture files of a folder and reads them as records, a frame or arrivals
pairing    pairs the captures of two variants by inference id, in bounded memory
record     writes and parses one line of a capture file
"""
