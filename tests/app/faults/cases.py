"""The cases: one function for each kind of fault. It writes the inputs and what is right."""

import io
import unicodedata
import zipfile

import numpy as np
import tifffile
from PIL import Image

from tests.app.faults.kit import (
    VOID,
    case,
    numbered,
    packed_tif,
    png,
    refused,
    registered,
    stack,
    stems,
    tif,
    tissue,
    warned,
    write_ome_zarr,
    write_zarr,
)


@case("what the container says of itself is ignored", "12 sections, each with its mask")
def imagej_stack_one_ifd(c):
    images, masks = tissue(12)
    one, one_mask = (
        tif(a, imagej=True, metadata={"axes": "ZYX"}, truncate=True) for a in (images, masks)
    )
    right = [registered(stack(12), images, masks)]
    c.dataset("both_one_ifd", {"a.tif": one}, {"a.tif": one_mask}, right)
    c.dataset("mask_12_pages", {"a.tif": one}, {"a.tif": tif(masks)}, right)
    c.dataset("image_only", {"a.tif": one}, {}, [registered(stack(12), images)])


@case("a sentinel collides with real values", "255 is the foreground, or told why not")
def binary_mask_0_255(c):
    images, masks = tissue(10)
    c.dataset(
        "binary",
        numbered(images),
        numbered(masks * 255),
        [
            registered(stems(10), images, masks),
            refused("255", "ignore"),
            {"status": 201, "warning_about": ["ignored", "no pixel"]},
        ],
    )


@case(
    "an order is assumed, not established",
    "order of acquisition, so that no split borders on another",
)
def natural_order_names(c):
    _, masks = tissue(20)
    long = tissue(1, 64, 96 + 20, seed=1)[0][0]
    images = [long[:, i : i + 96] for i in range(20)]  # neighbours overlap
    order = sorted(range(20), key=lambda i: str(i + 1))  # as a shell lists them: 1, 10, 11, ..., 2
    names = [f"img_{i + 1}" for i in range(20)]
    files, mask_files = ({names[i] + ".png": layer[i] for i in order} for layer in (images, masks))
    c.dataset(
        "twenty", files, mask_files, [registered(names, images, masks, gap_between_splits=True)]
    )


@case("a check is stricter than its purpose", "the volume registers, lost sections as unused")
def blank_and_repeated_sections(c):
    images, masks = tissue(10)
    lost, lost_masks = images.copy(), masks.copy()
    lost[[3, 7]], lost_masks[[3, 7]] = 0, 255
    right = [
        registered(
            stack(10),
            lost,
            lost_masks,
            tissue_only=np.delete(lost, [3, 7], 0),
            tolerance=3,
            unused=["a/0003", "a/0007"],
        )
    ]
    c.dataset("two_lost", {"a.tif": tif(lost)}, {"a.tif": tif(lost_masks)}, right)
    splits = {"train": stack(10)[:3], "val": stack(10)[4:6], "test": stack(10)[8:]}
    c.dataset(
        "two_lost_named_unused",
        {"a.tif": tif(lost)},
        {"a.tif": tif(lost_masks)},
        right,
        splits=splits,
    )
    for name, to, source in (("filled_with_neighbour", 2, 1), ("same_in_train_and_test", 9, 1)):
        copied, copied_masks = images.copy(), masks.copy()
        copied[to], copied_masks[to] = images[source], masks[source]
        apart = [
            registered(stack(10), copied, copied_masks, unused=[f"a/{i:04d}"]) for i in (to, source)
        ]
        right = (
            [registered(stack(10), copied, copied_masks)]
            if to == 2
            else [refused("same pixels"), *apart]
        )
        c.dataset(name, {"a.tif": tif(copied)}, {"a.tif": tif(copied_masks)}, right)


@case("statistics over pixels that are no data", "the grey window of the tissue, or a warning")
def void_padding_16bit(c):
    images, masks = tissue(10)
    wide = images.astype(np.uint16) * 20 + 30000
    wide[:, :, :14], masks[:, :, :14] = 0, 255  # 15 %
    right = registered(stems(10), wide, masks, tissue_only=wide[:, :, 14:], tolerance=100)
    any_window = registered(stems(10), wide, masks, tolerance=65535)
    c.dataset("padded", numbered(wide), numbered(masks), [right, warned(any_window, *VOID)])


@case("statistics over pixels that are no data", "the grey window of the tissue, or a warning")
def white_padding_8bit(c):
    images, _ = tissue(10)
    images[:, :, :14] = 255
    right = registered(stems(10), images, tissue_only=images[:, :, 14:], tolerance=3)
    any_window = registered(stems(10), images, tolerance=255)
    c.dataset("padded", numbered(images), {}, [right, warned(any_window, *VOID)])


@case(
    "a bound on one side only; metadata ignored",
    "told that the file says 4 nm; no training on 1 x 1 px",
)
def ome_tiff_micrometre(c):
    images, masks = tissue(6)
    size = {
        "PhysicalSizeX": 0.004,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.004,
        "PhysicalSizeYUnit": "µm",
    }
    content = {"a.ome.tif": tif(images, ome=True, metadata={"axes": "ZYX", **size})}
    right = registered(stack(6, "a.ome"), images)
    c.dataset("given_4", content, {}, [right])
    for nm in (0.004, 40.0):
        told = [refused("pixel size", "the file"), warned(right, "pixel size", "the file")]
        c.dataset(f"given_{nm:g}", content, {}, told, pixel_size_nm=nm)
    c.dataset(
        "source_4_nm", numbered(images), numbered(masks), [registered(stems(6), images, masks)]
    )
    c.dataset(
        "target_no_size_in_file",
        numbered(240 - images),
        {},
        [refused("pixel_size", "pixel size"), registered(stems(6), 240 - images)],
        pixel_size_nm=0.004,
    )


@case("two readers of one concept differ", "pixels as every viewer shows them")
def miniswhite_image_and_bilevel_mask(c):
    images, masks = tissue(2)
    c.dataset(
        "image",
        {"a.tif": tif(255 - images, photometric="miniswhite")},
        {},
        [registered(stack(2), images)],
    )
    c.dataset(
        "both_polarities",
        {"a.tif": tif(255 - images[0], photometric="miniswhite"), "b.tif": tif(images[1])},
        {},
        [registered(["a", "b"], images)],
    )
    bilevel = tif(masks[0] == 0, photometric="miniswhite")  # one bit; 0 is shown white: foreground
    c.dataset(
        "bilevel_mask",
        {"a.png": images[0]},
        {"a.tif": bilevel},
        [registered(["a"], images[:1], masks[:1])],
    )


@case("what the container says of itself is ignored", "reduced copies are no sections")
def pyramid_pages_and_thumbnails(c):
    images, masks = tissue(3, 192, 256)
    for name, n, steps, names in (
        ("pyramid", 1, (1, 2, 4), ["a"]),
        ("thumbnails", 3, (1, 8), stack(3)),
    ):
        plain = {"photometric": "minisblack", "compression": "zlib", "metadata": None}
        with tifffile.TiffWriter(buffer := io.BytesIO()) as writer:
            for image, step in ((image, step) for image in images[:n] for step in steps):
                reduced = int(step > 1)  # the page says so itself
                writer.write(
                    np.ascontiguousarray(image[::step, ::step]), subfiletype=reduced, **plain
                )
        right = [registered(names, images[:n], masks[:n])]
        c.dataset(
            name, {"a.tif": buffer.getvalue()}, {"a.tif": tif(masks[:n], compression="zlib")}, right
        )


@case(
    "what the container says of itself is ignored",
    "4 sections of one detector, or a refusal that names both",
)
def two_detectors_zcyx(c):
    images, _ = tissue(4)
    both = np.stack([images, 255 - images], axis=1)
    for kind, name in (("imagej", "a"), ("ome", "a.ome")):
        right = [
            refused("channel"),
            registered(stack(4, name), images),
            registered(stack(4, name), 255 - images),
        ]
        c.dataset(
            kind, {name + ".tif": tif(both, metadata={"axes": "ZCYX"}, **{kind: True})}, {}, right
        )


@case("a cost that grows with the square", "cubes register about as fast as sections")
def zarr_64cube_and_128cube_chunks(c):
    stripes = np.random.default_rng(3).integers(60, 200, 16, dtype=np.uint8)
    volume = np.tile(stripes, (128, 512, 32))  # packs well
    volume[np.arange(128), np.arange(0, 512, 4)] += 50  # a bright row, in each section another
    slow = {"id": "zlib", "level": 5}  # so that unpacking too often shows
    for name, chunks in (
        ("by_section", (1, 512, 512)),
        ("cube64", (64,) * 3),
        ("cube128", (128,) * 3),
    ):
        write_zarr(c.folder / name / "images.zarr", volume, chunks=chunks, compressors=slow)
        c.dataset(name, {}, {}, [registered(stack(128, "stack"), volume, only=(0, 63, 127))])


@case("a common format is missing", "the finest level, its pixel size from the file")
def ome_zarr_04_05_groups(c):
    images, masks = tissue(6)
    for version, sub in (("0.4", "v04"), ("0.5", "v05")):
        for name, array in (("images.zarr", images), ("masks.zarr", masks)):
            write_ome_zarr(c.folder / sub / name, array, version, (40.0, 4.0, 4.0))
        for nm in (4.0, None):  # None: leave the field out, the file says it
            c.dataset(
                sub,
                {},
                {},
                [registered(stack(6, "stack"), images, masks, pixel_size_nm=4.0)],
                pixel_size_nm=nm,
            )


@case("a common format is missing", "the sections")
def sharded_zarr_v3(c):
    images, masks = tissue(8)
    for name, array in (("images", images), ("masks", masks)):
        write_zarr(
            c.folder / f"sharded/{name}.zarr",
            array,
            zarr_format=3,
            chunks=(4, 32, 32),
            shards=(8, 64, 96),
        )
    c.dataset("sharded", {}, {}, [registered(stack(8, "stack"), images, masks)])


@case("a common format is missing", "the pixels; of a lossy file those that it decodes to")
def lzw_zstd_jpeg_tiff(c):
    images, masks = tissue(3)
    wide = images.astype(np.uint16) * 200
    lzw, lzw_mask, zstd = (
        packed_tif(images, "tiff_lzw"),
        packed_tif(masks, "tiff_lzw"),
        packed_tif(images, "zstd"),
    )
    predicted = packed_tif(wide, "tiff_lzw", tiffinfo={317: 2})
    c.dataset("lzw", {"a.tif": lzw}, {"a.tif": lzw_mask}, [registered(stack(3), images, masks)])
    c.dataset("lzw_predictor_16bit", {"a.tif": predicted}, {}, [registered(stack(3), wide)])
    c.dataset("zstd", {"a.tif": zstd}, {}, [registered(stack(3), images)])
    right = registered(stack(3), images, tolerance=5)
    for section, image in zip(right["dataset"]["sections"], images, strict=True):
        del section["sha256"], section["pixel_y_x_value"]
        section["mean"], section["mean_tolerance"] = float(image.mean()), 1.0
    c.dataset("jpeg", {"a.tif": packed_tif(images, "jpeg", quality=90)}, {}, [right])


@case("a common format is missing", "no wrap-around; the window in the file's own units")
def signed_and_float_tiff(c):
    images, _ = tissue(3)
    wide = images.astype(int)
    for name, array in (
        ("int16", (wide * 100 - 12000).astype(np.int16)),
        ("int8", (wide - 128).astype(np.int8)),
        ("float32", ((wide - 120) / 50).astype(np.float32)),
    ):
        low, high = float(array.min()), float(array.max())
        right = registered(stack(3), array, tolerance=(high - low) / 100, range=[low, high])
        del right["dataset"]["dtype"]  # it may be stored in another
        for section in right["dataset"]["sections"]:
            del section["sha256"], section["pixel_y_x_value"]
        first = np.unique(array[0], return_index=True)[1]  # where each value is, from low to high
        rising = [[int(v) for v in divmod(k, 96)] for k in first[:: len(first) // 8]]
        right["dataset"]["sections"][0]["rising_y_x"] = rising
        c.dataset(name, {"a.tif": tif(array)}, {}, [right])


@case("a common format is missing", "grey in equal channels is grey; colour is refused")
def grey_as_rgb_rgba_la(c):
    images, _ = tissue(1)
    files = {
        mode.lower(): {"a.png": png(Image.fromarray(images[0]).convert(mode))}
        for mode in ("RGB", "RGBA", "LA")
    }
    files["rgb_tiff"] = {"a.tif": tif(np.stack([images[0]] * 3, -1), photometric="rgb")}
    for name, content in files.items():
        c.dataset(name, content, {}, [registered(["a"], images)])
    colour = np.stack([images[0], 255 - images[0], images[0] // 2], -1)
    c.dataset("colour", {"a.png": colour}, {}, [refused("colour", "channel", "RGB")])


@case("ids have to be contiguous", "a mapping from the file's values to classes")
def class_ids_not_contiguous(c):
    images, masks = tissue(3, classes=3)
    names, values = ["background", "myelin", "axon"], np.array([0, 127, 255], np.uint8)
    files = numbered(images), numbered(values[masks])
    c.dataset("no_mapping", *files, [refused("127")], class_names=names)
    right = registered(stems(3), images, masks, classes=names)
    c.dataset("with_mapping", *files, [right], class_names=names)
    c.tries[-1]["mapping"] = {
        str(v): name for v, name in zip(values, names, strict=True)
    }  # in a field of your choice


@case("resolutions have to be equal", "masks brought to the image's size, nearest neighbour")
def mask_at_half_and_double_resolution(c):
    images, masks = tissue(4)
    coarse = masks[:, ::2, ::2]
    double, fit = masks.repeat(2, 1).repeat(2, 2), coarse.repeat(2, 1).repeat(2, 2)
    cropped = masks[:, 7:50, 5:80]  # no factor brings it to the image
    c.dataset("double", numbered(images), numbered(double), [registered(stems(4), images, masks)])
    c.dataset("half", numbered(images), numbered(coarse), [registered(stems(4), images, fit)])
    c.dataset(
        "no_multiple", numbered(images), numbered(cropped), [refused("px", "size", "resolution")]
    )


@case("names have to be equal", "paired by the usual endings")
def mask_suffixes(c):
    images, masks = tissue(3)
    right = [registered(stems(3, "img_{:03d}"), images, masks)]
    for sub, ending, folder in (
        ("mask", "_mask", "masks"),
        ("seg", "_seg", "masks"),
        ("labels_folder", "", "labels"),
    ):
        files = numbered(images, "img_{:03d}.png"), numbered(masks, "img_{:03d}" + ending + ".png")
        c.dataset(sub, *files, right, mask_folder=folder)


@case("two ways in differ", "files that systems leave are passed over, by folder and by upload")
def junk_files(c):
    images, masks = tissue(3)
    left = {
        "._s00.png": b"\0\5\x16\7\0\2\0\0",
        ".DS_Store": b"\0\0\0\1Bud1",
        "Thumbs.db": b"\xd0\xcf\x11\xe0" * 8,
        "desktop.ini": b"[.ShellClassInfo]\r\n",
        "__MACOSX/._s00.png": b"\0\5\x16\7\0\2\0\0",
    }
    right = [registered(stems(3), images, masks)]
    for number, (name, content) in enumerate(left.items()):
        c.dataset(f"one_{number}", numbered(images) | {name: content}, numbered(masks), right)
    c.dataset("all", numbered(images) | left, numbered(masks) | left, right)


@case("names are not normalised", "paired: to a user the names are equal")
def nfc_nfd_names(c):
    images, masks = tissue(3)
    names = [unicodedata.normalize("NFC", name) for name in ("Probe_ü1", "coupe_é2", "切片_Å3")]
    decomposed = [unicodedata.normalize("NFD", name) for name in names]
    files, mask_files = (
        {n + ".png": a for n, a in zip(*pairs, strict=True)}
        for pairs in ((names, images), (decomposed, masks))
    )
    c.dataset("masks_nfd", files, mask_files, [registered(names, images, masks)])


@case("a message guesses", "the array inside, or a refusal that says it lies in a folder")
def zip_with_outer_folder(c):
    images, masks = tissue(4)
    packed = {}
    for layer, array in (("images", images), ("masks", masks)):
        inside, buffer = c.folder / "unpacked" / f"{layer}.zarr", io.BytesIO()
        write_zarr(inside, array)
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in sorted(p for p in inside.rglob("*") if p.is_file()):
                entry = zipfile.ZipInfo(
                    f"{layer}.zarr/{path.relative_to(inside)}", (2020, 1, 1, 0, 0, 0)
                )
                archive.writestr(entry, path.read_bytes())
        packed[layer] = {"vol.zarr.zip": buffer.getvalue()}
    right = [registered(stack(4, "vol"), images, masks), refused("outer", "inside", "folder")]
    c.dataset("outer", packed["images"], packed["masks"], right)


@case(
    "statistics over pixels that are no data", "the strip is noticed; window and tiles without it"
)
def scale_bar_strip(c):
    images, _ = tissue(6, 128, 128)
    field = images.astype(np.uint16) * 16 + 700  # about 1900 to 3400 of a 12-bit detector
    strip = np.zeros((6, 40, 128), np.uint16)
    strip[:, 18:24, 12:62] = strip[:, 10:30:4, 78:116:3] = (
        4080  # the bar, and something like writing
    )
    whole = np.concatenate([field, strip], 1)
    cropped = registered(stems(6), field, num_images=24)
    right = registered(stems(6), whole, tissue_only=field, tolerance=80)
    any_window = registered(stems(6), whole, tolerance=65535)
    rights = [cropped, warned(right, *VOID), warned(any_window, *VOID)]
    c.dataset("with_strip", numbered(whole), {}, rights, tile_px=64)
