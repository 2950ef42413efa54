"""A hook of mkdocs: README.md is the start page, and what pages link to outside of docs/ is part of the site.

Pages are written for the repository's file view. Here their links are turned into those of the site, and mkdocs then
checks every one of them.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "repository/"  # where the site has files from outside of docs/
LINK = re.compile(r'(?<=\]\()[^)#\s]+|(?<=src=")[^"#]+')


def _place(path):
    """Where the site has a file of the repository; both are paths from the respective root"""
    return "index.md" if path == "README.md" else path[5:] if path.startswith("docs/") else OUTSIDE + path


def _origin(place):
    """The file of the repository that stands there: the inverse of `_place`"""
    if place.startswith(OUTSIDE):
        return place[len(OUTSIDE) :]
    return "README.md" if place == "index.md" else f"docs/{place}"


def _targets(path, text):
    """{link: file of the repository} of a page's links to files"""
    links = {link for link in LINK.findall(text) if ":" not in link}
    return {link: posixpath.normpath(posixpath.join(posixpath.dirname(path), link)) for link in links}


def on_files(files, config):
    """Adds the start page, and files outside of docs/ that a page links to, and those that they link to."""
    pending = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    while pending:
        path = pending.pop()
        if not files.get_file_from_path(_place(path)):
            files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            found = _targets(path, (ROOT / path).read_text(encoding="utf-8")).values()
            pending += [
                each for each in found if not files.get_file_from_path(_place(each)) and (ROOT / each).is_file()
            ]
    return files


def on_page_markdown(markdown, page, config, files):
    """A page's text with links of the site. Those that lead nowhere stay, and mkdocs refuses them."""
    here = posixpath.dirname(page.file.src_uri)
    targets = _targets(_origin(page.file.src_uri), markdown)
    for source in re.findall(r'(?<=src=")[^"#]+', markdown):  # which mkdocs does not look at
        if source in targets and not files.get_file_from_path(_place(targets[source])):
            get_plugin_logger("site").warning(f"{page.file.src_uri} shows {source}, which does not exist")
    place = lambda link: posixpath.relpath(_place(targets[link]), here) if link in targets else link
    return LINK.sub(lambda found: place(found[0]), markdown)
