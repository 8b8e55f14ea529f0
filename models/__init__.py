"""StyleFilter (Seletkov et al., ISBI 2024) in PyTorch.

============================================  =================================================
Paper                                         File
============================================  =================================================
Section 2, the three steps; loss L_SF         ``stylefilter.py``
Step 1, style transfer with CUT [7]           ``style_transfer.py``, ``networks/generator.py``,
                                              ``networks/discriminator.py``,
                                              ``networks/patch_projector.py``
Step 2, Eq. 1, U-Net [12]                     ``segmentation.py``, ``networks/unet.py``
Step 3, Eq. 2 and Eq. 3                       ``pseudo_labels.py``, ``adaptation.py``
All losses                                    ``losses.py``
"At inference time", x* = style(x)            ``inference.py``
"Implementation details"                      ``config/``, ``training/lengths.py``,
                                              ``training/loop.py``, ``data/sampling.py``,
                                              ``data/samples.py``, ``data/augmentation.py``
"Experimental setup", splits, DICE            ``data/splits.py``, ``evaluation.py``,
                                              ``scores.py``
Table 1: its rows and their methods           ``table1/methods.py``
Table 1: training and numbers                 ``table1/training.py``,
                                              ``table1/statistics.py``
Y-Net [3]                                     ``baselines/ynet.py``,
                                              ``baselines/reconstruction.py``
Paul et al. [5]                               ``baselines/weak_labels.py``,
                                              ``baselines/adversaries.py``,
                                              ``baselines/class_discriminators.py``,
                                              ``baselines/pooling.py``, ``baselines/regions.py``
============================================  =================================================
"""
