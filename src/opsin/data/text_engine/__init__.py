"""Images of words, lines and pages, made from fonts and photographs, with the place of every character.

After Jaderberg et al. 2014, "Synthetic Data and Artificial Neural Networks for Natural Scene Text Recognition"
(arXiv:1406.2227), section 2: font, border and shadow, colours from natural images, projective distortion, blending
with natural images, noise. `engine.TextEngine` makes one image of one text; `source` opens `synthetic:words`.
"""
