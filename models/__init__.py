"""StyleFilter (Seletkov et al., ISBI 2024) in PyTorch.

============================================  =================================================
Paper                                         File
============================================  =================================================
Section 2, the three steps; loss L_SF         ``stylefilter.py``
Step 1, style transfer with CUT [7]           ``style_transfer.py``, ``networks/generator.py``,
                                              ``networks/discriminator.py``,
                                              ``networks/patch_projector.py``
Step 2, Eq. 1, U-Net [12]                     ``segmentation.py``, ``networks/unet.py``
Step 3, Eq. 2 and Eq. 3                       ``pseudo_labels.py``
All losses                                    ``losses.py``
"At inference time", x* = style(x)            ``inference.py``
"Implementation details"                      ``config.py``, ``lengths.py``, ``training.py``,
                                              ``data/sampling.py``, ``data/samples.py``,
                                              ``data/augmentation.py``
"Experimental setup", splits, DICE            ``data/splits.py``, ``evaluation.py``,
                                              ``scores.py``
Table 1: its rows                             ``rows.py``, ``methods.py``, ``adaptation.py``
Y-Net [3]                                     ``ynet.py``, ``networks/reconstruction.py``
Paul et al. [5]                               ``weak_labels.py``, ``adversaries.py``,
                                              ``pooling.py``, ``data/regions.py``,
                                              ``networks/class_discriminators.py``
Table 1: its numbers                          ``plan.py``, ``table.py``, ``table_statistics.py``
============================================  =================================================
"""
