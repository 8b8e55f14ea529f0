"""Adapt a segmentation to another microscope, from folders, without the service.

Run it as a script, or cell by cell in an editor that knows ``# %%``.
"""

# %% Two synthetic microscopes stand in for your own folders of images and masks.
from pathlib import Path

from app.cli.synthetic.domain import write_domain

for seed, domain in enumerate(("source", "target")):
    write_domain(Path("data") / domain, domain, num_sections=6, size_px=256, seed=seed)

# %% The whole way: open, adapt, score, predict, save, load.
from models.config.presets import preset
from models.notebook import Description, adapt, load, open_folder

classes = ["cytosol", "membrane", "mitochondrion", "nucleus", "vesicle"]
source = open_folder("data/source", Description(class_names=classes, pixel_size_nm=8))
target = open_folder(
    "data/target",
    Description(class_names=classes, pixel_size_nm=10, tile_px=128),
    labels="from_masks",  # or yours: {0: {"nucleus": "absent", "membrane": "present"}, ...}
)
adapted = adapt(source, target, preset("best"), on_progress=print)
print(adapted.evaluate(target, "test").dice)

image = target.native_image(target.sections[-1])
prediction = adapted.predict(image)  # .mask (H, W) and .probabilities (C, H, W)
adapted.save("adapted")
assert (load("adapted").predict(image).mask == prediction.mask).all()
