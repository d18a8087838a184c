"""Writes ../heldout.jsonl, the held-out questions with their exact answers.

    python make_lists.py
"""
import json
import pathlib

import data

with open(pathlib.Path(__file__).resolve().parent.parent / "heldout.jsonl", "w", encoding="utf-8") as out:
    for case in data.heldout():
        out.write(json.dumps(case, ensure_ascii=False) + "\n")
