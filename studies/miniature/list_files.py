"""Lists the files of the shipped miniature with their sums, by which blockrate knows them: run it when they change.

``python studies/miniature/list_files.py``
"""

import json

from blockrate.models.shipped import LIST, list_files, shipped_folder

NAME = "miniature"
ABOUT = "The files of this model: bytes and SHA-256. Written by studies/miniature/list_files.py"

if __name__ == "__main__":
    text = json.dumps({"about": ABOUT, "files": list_files(NAME)}, indent=1)
    (shipped_folder(NAME) / LIST).write_text(f"{text}\n", encoding="utf-8")
