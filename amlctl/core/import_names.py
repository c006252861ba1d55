"""Names of modules and of the packages that bring them, which mostly are the same."""

from __future__ import annotations

import re

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
