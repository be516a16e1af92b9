"""What mkdocs calls while it builds the site: pages that are made, and links that leave docs/."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is on no path."""
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{name}.py beside {__file__}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


links, reference = _beside("links"), _beside("reference")


@event_priority(100)  # before the navigation is made of the files
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, the JSON Schemas, and files of the repository that pages link to."""
    for path, text in reference.pages().items():
        files.append(File.generated(config, path, content=text))
    for path, schema in reference.schemas().items():
        files.append(File.generated(config, path, content=json.dumps(schema, indent=2, ensure_ascii=False)))
    linked = {path for file in files.documentation_pages() for path in links.copied(file.src_uri, file.content_string)}
    for path in sorted(linked):
        files.append(File.generated(config, f"{links.COPIES}/{path}", abs_src_path=str(links.ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: PLR0917 -- mkdocs' call
    """The page with its links to the repository rewritten."""
    return str(links.rewritten(page.file.src_uri, markdown, config.repo_url))
