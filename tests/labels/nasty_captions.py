"""Captions as nobody should write them and the web does: what labels have to be right on, too."""

from __future__ import annotations

import random

HAND_PICKED = r"""
A dog.
a dog. a cat. Two geese!
Mr. Smith's cat in St. Louis vs. the U.S. team
IMAGE OF TWO WOMEN
boss, glasses, jeans, spectacles and cookies
ice cream ice_cream merry-go-round father-in-law
dog<br>cat I <3 dogs > cats
A+Red%20Apple 50% off 100%25
&lt;b&gt;bold &amp; the dog&#39;s toy
it’s schÃ¶n “café” ﬁsh Ａpple
don't can't gonna cannot o'clock
'dog' "cat" ''bird'' `cow`
e.g. no. 5. the end...
3.5mm (35,000 pcs.) $9.99
dog.cat,bird;cow:fish
😀🐶🎂
猫 и собака
dogs' 'tis d'ye more'n
None nan null are can may over there
İstanbul ſtreet ǆ
----- ***** .....
women's men's children's geese's
wolves. 'knives' (sheep.) [oxen].
u.s.a. p.m. a.m. dr. jr.
""".strip().split("\n")
HAND_PICKED += ["", " ", '"""quoted"" text"', "a\xa0dog\tand\na cat\r\n", "e\u0301tude", "\x00\x85\u200b\ufeff dog"]

_ATOMS = r"""
a dog cats i st mr u.s 3 12 x . .. ... , ' '' " ` - -- ’ ” “ » « ( ) [ ] ? ! : ; % $ # @ & * / _ cannot gonna wanna 's n't
'tis é — 猫 < > no women boss IMAGE Apples &amp; <b> %20 + 😀 are None Jan b smith
""".split()  # noqa: SIM905
_ATOMS += ["\xa0", "\n", "\t"]


def random_captions(count: int, seed: int = 0) -> list[str]:
    """Short strings of words and marks, with and without spaces between."""
    rng = random.Random(seed)
    return ["".join(rng.choice(_ATOMS) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 9))) for _ in range(count)]
