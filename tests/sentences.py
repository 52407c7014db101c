"""What flow can say: its texts as patterns, put together as the code puts them together."""

import ast
import re
from itertools import islice, product
from pathlib import Path

HOLE = "\0"
"""Stands for what is filled in."""
PLACEHOLDER = re.compile(r"%[.\d]*[srdfg]|\{[^{}]*\}")
MOST = 16  # wordings of one text that are looked at

Texts = list[str]
Names = dict[str, list[ast.expr]]


def sayings(folders: list[Path]) -> set[str]:
    """Return every text of the modules in *folders*, with `HOLE` for what is filled in.

    Names that stand in a text are replaced by the texts that are assigned to them in the same module.
    """
    found: set[str] = set()
    for folder in folders:
        for path in folder.rglob("*.py"):
            tree = ast.parse(path.read_text())
            names: Names = {}
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    names.setdefault(node.targets[0].id, []).append(node.value)
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                    found.update(text.replace("`", "") for text in texts(node, names))
    return found


def texts(node: ast.expr, names: Names, depth: int = 3) -> Texts:
    """Return what an expression can say."""
    match node:
        case ast.Constant(value=str(value)):
            return [PLACEHOLDER.sub(HOLE, value)]
        case ast.JoinedStr(values=values):
            parts = [
                [one.value] if isinstance(one, ast.Constant) else texts(one, names, depth) for one in values
            ]
            return ["".join(map(str, one)) for one in islice(product(*parts), MOST)]
        case ast.FormattedValue(value=value):
            return texts(value, names, depth)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = product(texts(left, names, depth), texts(right, names, depth))
            return [first + second for first, second in islice(sides, MOST)]
        case ast.IfExp(body=body, orelse=orelse):
            return texts(body, names, depth) + texts(orelse, names, depth)
        case ast.Name(id=name) if name in names and depth:
            known = [text for value in names[name] for text in texts(value, names, depth - 1)]
            return list(dict.fromkeys(known))[:MOST]
    return [HOLE]


def is_said(sentence: str, said: set[str]) -> bool:
    """Whether the pieces of *sentence*, with … between them, stand in this order in one text.

    Where one text is filled into another after a colon, each must be said.
    """
    pieces = [piece.strip() for piece in sentence.removeprefix("…:").split("…")]
    wanted = re.compile(".*".join(re.escape(piece) for piece in pieces if piece), re.DOTALL)
    if wanted.pattern and any(wanted.search(text) for text in said):
        return True
    places = [place.start() for place in re.finditer(": ", sentence)]
    return any(
        enough(half) and enough(rest) and is_said(half, said) and is_said(rest, said)
        for half, rest in ((sentence[:place], sentence[place + 2 :]) for place in places)
    )


def enough(part: str) -> bool:
    """Whether a part of a sentence has words of its own, so that it is not said by chance."""
    return len(re.findall(r"\w{2,}", part)) >= 2
