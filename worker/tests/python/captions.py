"""Captions and their cleaned form in diffusers with clean_caption=True. `python captions.py` writes
tests/fixtures/captions.json (`check`: only compares), and checks that ftfy leaves alone the characters that the worker
assumes it does.
pip install torch diffusers==0.42.1 transformers beautifulsoup4 ftfy"""
import json, os, string, sys, warnings
warnings.filterwarnings("ignore")
import ftfy
from diffusers import PixArtAlphaPipeline as P

CAPTIONS = [
    "", "a red apple on a sky blue background", "  A  Red\tApple,\non a TABLE.  ", "An owl -- \"wise\" and ''old''...",
    "see https://example.com/a/b?c=d for more", "www.example.org/pic and mail me@example.com now", "by @some_artist and @x1, 4k",
    "a café in Nîmes, naïve façade", "“curly” ‘quotes’ – and — dashes", "1920x1080 wallpaper 3.5x2.25 photo",
    "img_2031.jpg a cat IMG1234 abc123def 12ab34 j2d1a2a", "#123 #12345678 item 1234567 and 99999", "free shipping worldwide free shipping",
    "free download of the page 12, click for more", "this-is-my-cute-cat and this_is_my_dog", "one-two_three", "192.168.0.1 router",
    "price: 10 : 20 a , b.c d/e (f) [g] {h} | i \\ j * k ~ l § m", "line\\nbreak", "\"quoted whole\"", "'_leading and trailing-",
    ".hidden", "<person> walks", "50%25 off, caf%C3%A9 a+b+c", "你好 an owl 世界 ㍿", "5:30   ", "tom & jerry", "end.", "a: b ; c,d",
    "photo jpg images and png image", "a.b.c", "3x4 tiles", "HDR 8k UHD, trending on artstation", "don't can't it's", "®©™ marks",
]
REFUSED = ["a <b>bold</b> owl", "r&b night", "fish &amp; chips", "schÃ¶n", "\u0441\u043e\u0432\u0430", "owl \U0001f989", "ﬁre", "%FF", "são paulo", "dashes …", "№ 5", "a\x1b[1mb"]


class Plain:
    """The attributes of a pipeline that its cleaning function uses."""
    bad_punct_regex, _clean_caption = P.bad_punct_regex, P._clean_caption


if __name__ == "__main__":
    cleaned = [P._text_preprocessing(Plain(), c, clean_caption=True)[0] for c in CAPTIONS]
    safe = [chr(c) for c in range(0xE0, 0x100) if chr(c) not in "âã÷"]
    for c in safe:
        for a in string.printable[:96]:
            for b in string.printable[:96]:
                assert ftfy.fix_text(a + c + b) == a + c + b, (a, c, b)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "captions.json")
    found = dict(cleaned=[list(pair) for pair in zip(CAPTIONS, cleaned)], refused=REFUSED)
    if sys.argv[1:] == ["check"]:
        assert json.load(open(path)) == found
    else:
        json.dump(found, open(path, "w"), ensure_ascii=False, indent=0)
    print(f"{len(CAPTIONS)} captions; ftfy leaves {len(safe)} letters between ASCII alone")
