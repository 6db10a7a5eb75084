"""The look of every figure: colour-blind-safe colours, one per thing in all notebooks, legible at half size."""

from __future__ import annotations

import matplotlib.pyplot as plt
import seaborn as sns

COLOURS = {  # Okabe and Ito's palette
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#7F7F7F",
}


def use_theme() -> None:
    """Set matplotlib's and seaborn's defaults; a chapter calls it once, where it imports."""
    sns.set_theme(style="whitegrid", context="notebook", palette=list(COLOURS.values()))
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "legend.frameon": False,
        }
    )
