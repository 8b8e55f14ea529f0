"""Writes inputs that once failed, and what is right for each, computed from the arrays themselves.

All pixels are synthetic, and the same in every run.
"""

import hashlib
import io

import numpy as np
import tifffile
import zarr
from PIL import Image

CLASSES = ["background", "mitochondrion"]
VOID = ["padding", "void", "border", "strip", "constant", "one value", "same value"]
CASES = {}


def case(kind, wants):
    """Make a function a case: of which kind of fault it is, and what a user wants to see."""
    return lambda write: CASES.setdefault(write.__name__, (kind, wants, write))


class Case:
    """One folder of inputs, and the list of what to try with them."""

    def __init__(self, out, name):
        self.folder, self.name, self.tries = out / name, name, []

    def write(self, path, content):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else png(content))

    def dataset(self, sub, images, masks, right, mask_folder="masks", **metadata):
        """A dataset to register; without images: its folder holds images.zarr already.

        Contents of files: bytes, or an array, which becomes a PNG.
        """
        for layer, files in (("images", images), (mask_folder, masks)):
            for name, content in files.items():
                self.write(f"{sub}/{layer}/{name}", content)
        self.tries.append(
            {
                "register": sub,
                "ways": ["folder", "upload"] if images and mask_folder == "masks" else ["folder"],
                "images": [f"{sub}/images/{name}" for name in images],
                "masks": [f"{sub}/{mask_folder}/{name}" for name in masks],
                "metadata": {"name": sub, "class_names": CLASSES, "pixel_size_nm": 4.0} | metadata,
                "right": right,
            }
        )


def registered(
    names, images, masks=None, *, classes=CLASSES, tissue_only=None, tolerance=0, only=None, **more
):
    """The dataset as it must be registered; `tissue_only` are the pixels that decide the window."""
    pixels = np.concatenate([np.ravel(a) for a in (images if tissue_only is None else tissue_only)])
    window = np.percentile(pixels, (0.5, 99.5), method="inverted_cdf").astype(float)
    sections = []
    for index in range(len(images)) if only is None else only:
        image = images[index]
        (height, width), y, x = image.shape, image.shape[0] // 3, image.shape[1] // 2
        sections.append(
            {
                "index": index,
                "name": names[index],
                "height": height,
                "width": width,
                "sha256": sha256(image),
                "pixel_y_x_value": [y, x, image[y, x].item()],
            }
        )
        if masks is not None:
            sections[-1]["mask_sha256"] = sha256(masks[index].astype(np.uint8))
    found = {
        "num_sections": len(images),
        "num_masks": 0 if masks is None else len(masks),
        "dtype": images[0].dtype.name,
        "intensity_window": window.tolist(),
        "intensity_window_tolerance": tolerance,
        "sections": sections,
    }
    if masks is not None:
        counts = np.bincount(np.concatenate([np.ravel(m) for m in masks]), minlength=256)
        found["class_pixels"] = {name: int(n) for name, n in zip(classes, counts, strict=False)}
        found["ignored_pixels"] = int(counts[255])
    return {"status": 201, "dataset": found | more}


def refused(*about):
    """A refusal whose message is about one of these words."""
    return {"status": 422, "message_about": list(about)}


def warned(answer, *about):
    """The answer, with a warning in it that is about one of these words."""
    return answer | {"warning_about": list(about)}


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def tissue(n=1, height=64, width=96, seed=0, classes=2):
    """n sections, uint8 of about 75 to 170, with masks of class ids; no two sections are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    images, masks = [], []
    for z in range(n):
        mask = np.zeros((height, width), np.uint8)
        for c in list(range(1, classes)) * 3:
            cy, cx = (0.1 + 0.8 * rng.random(2)) * (height, width)
            ry, rx = 5 + 6 * rng.random(2)
            mask[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = c
        ground = 145 + 10 * np.sin(x / 7 + z) * np.cos(y / 9 - z) - 45 * mask / (classes - 1)
        images.append((ground + rng.integers(-14, 15, mask.shape)).astype(np.uint8))
        masks.append(mask)
    return np.stack(images), np.stack(masks)


def png(picture):
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.ascontiguousarray(picture))
    picture.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def tif(array, **options):
    if options.get("ome"):
        options["metadata"] |= {
            "UUID": "urn:uuid:00000000-0000-4000-8000-000000000000"
        }  # else another in each run
    tifffile.imwrite(buffer := io.BytesIO(), array, **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


def packed_tif(arrays, compression, **options):
    """A TIFF in a compression that tifffile alone does not write."""
    pages, buffer = [Image.fromarray(a) for a in arrays], io.BytesIO()
    pages[0].save(
        buffer, "TIFF", compression=compression, save_all=True, append_images=pages[1:], **options
    )
    return buffer.getvalue()


def numbered(arrays, name="s{:02d}.png"):
    return {name.format(i): a for i, a in enumerate(arrays)}


def stems(n, name="s{:02d}"):
    return [name.format(i) for i in range(n)]


def stack(n, name="a"):
    return stems(n, name + "/{:04d}")


def write_zarr(path, array, **options):
    options = {"chunks": (1, *array.shape[1:]), "zarr_format": 2} | options
    zarr.create_array(str(path), shape=array.shape, dtype=array.dtype, overwrite=True, **options)[
        :
    ] = array


def write_ome_zarr(path, array, version, scale):
    """A multiscale group of two levels; each says its scale, and where its first voxel is."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    multiscale = {"version": version, "name": "stack", "axes": axes, "datasets": []}
    for level, k in ((0, 1), (1, 2)):
        part = array[:, ::k, ::k]
        group.create_array(str(level), shape=part.shape, dtype=part.dtype, chunks=(2, 32, 48))[
            :
        ] = part
        multiscale["datasets"].append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale[0], scale[1] * k, scale[2] * k]},
                    {
                        "type": "translation",
                        "translation": [0.0, (k - 1) * scale[1] / 2, (k - 1) * scale[2] / 2],
                    },
                ],
            }
        )
    plain = {"multiscales": [multiscale]}
    group.attrs.update(plain if version == "0.4" else {"ome": {"version": version, **plain}})
