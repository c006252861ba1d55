"""Names of packages: those that bring a module, and those of conda as PyPI has them, with their version rules.

Most names are the same; the tables have those that differ, and those that only conda has because they are not Python
packages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from amlctl.errors import SettingsError

_PACKAGES = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "hydra": "hydra-core",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "OpenSSL": "pyopenssl",
    "osgeo": "gdal",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "umap": "umap-learn",
    "usb": "pyusb",
    "websocket": "websocket-client",
    "win32com": "pywin32",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}


def package_of(module: str) -> str:
    """The package to ask for so that the module can be imported."""
    top = module.partition(".")[0]
    return _PACKAGES.get(top, top.replace("_", "-"))


def normalized(package: str) -> str:
    """As package indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def may_bring(package: str, module: str) -> bool:
    """Whether a package may have the module: names differ in prefixes, suffixes and dashes."""
    wanted, name = normalized(module.partition(".")[0]), normalized(package)
    usual = normalized(package_of(module))
    variants = (usual, usual.removesuffix("-headless"), usual.removesuffix("-cpu"), usual.removesuffix("-binary"))
    return wanted in name or name in wanted or any(one in name for one in variants)


PYPI_NAMES: Mapping[str, str] = {
    "brotli-python": "brotli",
    "cupy-core": "cupy",
    "dask-core": "dask",
    "keras-base": "keras",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "opencv": "opencv-python",
    "py-lightgbm": "lightgbm",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "python-graphviz": "graphviz",
    "python-tzdata": "tzdata",
    "python-xxhash": "xxhash",
    "pytables": "tables",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "seaborn-base": "seaborn",
    "snappy-python": "python-snappy",
    "tensorflow-base": "tensorflow",
    "tensorflow-gpu": "tensorflow",
}

# fmt: off
NOT_ON_PYPI = frozenset((
    "blas", "bzip2", "c-compiler", "ca-certificates", "compilers", "cpuonly", "cuda", "cuda-nvcc",
    "cuda-runtime", "cuda-toolkit", "cuda-version", "cudatoolkit", "cudnn", "cxx-compiler", "eigen", "expat",
    "ffmpeg", "fftw", "fontconfig", "fortran-compiler", "freetype", "gcc", "gcc_linux-64", "gdal", "geos",
    "git", "git-lfs", "glib", "go", "gxx", "gxx_linux-64", "hdf5", "icu", "imagemagick", "java-jdk", "jpeg",
    "lame", "libblas", "libgcc-ng", "libgomp", "libiconv", "libjpeg-turbo", "liblapack", "libopencv",
    "libpng", "libprotobuf", "libsndfile", "libstdcxx-ng", "libtiff", "libwebp", "llvm-openmp", "llvmdev",
    "lz4-c", "make", "mesa", "mkl-service", "mpich", "nccl", "ncurses", "nodejs", "nomkl", "openblas",
    "openjdk", "openjpeg", "openmpi", "openssl", "perl", "pkg-config", "poppler", "portaudio",
    "pytorch-cuda", "pytorch-mutex", "r-base", "readline", "rust", "sox", "sqlite", "swig", "tesseract",
    "tk", "x264", "xz", "yasm", "zlib", "zstd",
))
"""Not Python packages, so only conda has them."""
# fmt: on

_SPEC = re.compile(r"(?:(?P<channel>[^\s:]+)::)?(?P<name>[A-Za-z0-9_.-]+)\s*(?P<version>[^\s\[]*(?:\s+[^\[]*)?)")


def pip_requirements(conda: Sequence[str]) -> list[str]:
    """The match specs of a conda file as requirements of pip, in their order.

    Raises SettingsError that names every package which pip cannot install.
    """
    parsed = [_split(spec) for spec in conda]
    missing = [name for name, _ in parsed if name in NOT_ON_PYPI or name.startswith("r-")]
    if missing:
        raise SettingsError(
            f"without conda these packages of the environment cannot be installed: {', '.join(missing)}",
            hint="install micromamba, mamba or conda, or take them out of the environment file "
            "(`conda env export --from-history` lists only what you asked for)",
        )
    return [PYPI_NAMES.get(name, name) + _pip_version(name, version) for name, version in parsed if name != "pip"]


def _split(spec: str) -> tuple[str, str]:
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise SettingsError(
            f"without conda {spec!r} in the environment file cannot be parsed",
            hint="write it as name, name=1.2 or name>=1.2, or install micromamba",
        )
    return match["name"].lower(), match["version"].strip()


def _pip_version(name: str, version: str) -> str:
    """Conda's `=1.2` is a prefix, `==1.2` exact, `1.2.*` a prefix; a build string after a further `=` is dropped."""
    if not version or version == "*":
        return ""
    if "|" in version:
        raise SettingsError(
            f"without conda {name} {version!r} in the environment file cannot be translated for pip, which has no `|`",
            hint=f"write {name} with one range, such as >=1.2,<2",
        )
    return ",".join(_pip_clause(clause) for clause in version.replace(" ", ",").split(",") if clause)


def _pip_clause(clause: str) -> str:
    if clause.startswith((">", "<", "!=", "~=")):
        return clause
    is_prefix = clause.startswith("=") and not clause.startswith("==")
    number, _, build = clause.lstrip("=").partition("=")
    if is_prefix and not build:
        return f"=={number.removesuffix('.*')}.*"
    return f"=={number}"
