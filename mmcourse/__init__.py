"""mmcourse: every component of a course on multimodal large models, small and readable.

One axis legend for the whole package; a shape such as ``Float[Tensor, "B N D"]`` reads:

==  ==================  ==  ==========================================
B   batch               P   patch side, in pixels
N   tokens of any kind  C   channels
L   text length         F   frames of a clip (or of a spectrogram)
D   width               V   vocabulary
H   heads, or height    M   modalities (or mel bands in a spectrogram)
K   keys                T   audio samples
W   picture width       S   sampled spectrum bins
==  ==================  ==  ==========================================

Importing ``mmcourse`` imports nothing else: each notebook imports the files it teaches.
"""

__version__ = "0.1.0"
