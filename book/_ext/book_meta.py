"""What a page says of itself besides its text: title, description and picture for a search engine or a chat, version
and licence in the footer; and the page for addresses that lead nowhere.

An address of the site is written only where `html_baseurl` gives one.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from bnbook import __version__

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "book" / "_assets" / "xray.png"
PICTURE_ALT = "Activations and gradients over the layers of a deep network, with and without batch normalization."
SUBTITLE = "an executable book"
HOME = "Start here"  # in the sidebar, below the book's own title
LONGEST = 200  # characters of a description; what shows them cuts there or before
GENERATED = {  # pages that no author wrote
    "search": "Search all chapters and the back matter of the book.",
    "genindex": "Every function, class and term that the book documents, in alphabetical order.",
    "py-modindex": "The modules of the package that the book builds.",
}
LEARN = "You will learn"
VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')

# It has no styles and no scripts to load: the server sends it under any address. `site` is found from that address;
# without JavaScript the links hold for an address in the book's own folder, where all chapters are.
NOT_FOUND = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Page not found — {title}</title>
<style>
:root {{ color-scheme: light dark; font: 1.1rem/1.6 system-ui, sans-serif; }}
body {{ margin: 15vh auto; max-width: 34rem; padding: 0 1rem; }}
</style>
</head>
<body>
<main>
<h1>This page is not here</h1>
<p>The address may have a mistake in it, or the page may have moved.</p>
<ul>
<li><a href="{site}{page}">{title}: {home}</a></li>
<li><a href="{site}search.html">Search the book</a></li>
</ul>
</main>
<script>
const folder = location.pathname.replace(/[^/]*$/, "");
const site = location.pathname.endsWith("/404.html") ? folder : folder.replace(/(^|\\/){book}\\/.*$/, "$1");
for (const link of document.querySelectorAll('a[href^="../"]')) link.href = site + link.getAttribute("href").slice(3);
</script>
</body>
</html>
"""


def configure(app: Sphinx, config: Config) -> None:
    config.version = config.release = __version__
    # The landing page's window title leaves the book's title out, which else stands there twice; the sidebar keeps it.
    config.html_theme_options = {
        **config.html_theme_options,
        "logo": {"text": config.html_title},
        "footer_content_items": ["extra-footer.html"],
    }


def description(doctree: nodes.document) -> str:
    """What one learns on the page, where it says so, else its first paragraph; a formula in it is left out."""
    paragraphs = [_words(paragraph) for paragraph in doctree.findall(nodes.paragraph)]
    learn = [words.removeprefix(LEARN).lstrip(" :") for words in paragraphs if words.startswith(LEARN)]
    text = next(iter([*learn, *paragraphs]), "")
    return _shortened(text[:1].upper() + text[1:])


def _words(paragraph: nodes.paragraph) -> str:
    texts = [text.astext() for text in paragraph.findall(nodes.Text) if not isinstance(text.parent, nodes.math)]
    return re.sub(r"\s+(?=[,.;:])", "", " ".join("".join(texts).split()))


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return text[:LONGEST].rpartition(" ")[0].rstrip(" ,;:") + "…"


def tags(app: Sphinx, page: str, title: str, about: str, picture: str, url: str = "") -> str:
    """The tags of one page's head; `picture` leads to the picture from there."""
    base = app.config.html_baseurl
    named = {"description": about, "author": app.config.author, "twitter:card": "summary_large_image"}
    graph = {
        "og:site_name": app.config.html_title,
        "og:type": "website" if page == app.config.root_doc else "article",
        "og:title": title,
        "og:description": about,
        "og:image": urljoin(base.rstrip("/") + "/", "_static/" + PICTURE.name) if base else picture,
        "og:image:alt": PICTURE_ALT,
    } | ({"og:url": url} if url else {})
    lines = [f'<meta name="{name}" content="{html.escape(value)}">' for name, value in named.items()]
    lines += [f'<meta property="{name}" content="{html.escape(value)}">' for name, value in graph.items()]
    return "\n" + "\n".join(lines) + "\n"


def footer(app: Sphinx, licence: str) -> str:
    return (
        f"<p>Version {__version__} · © {app.config.copyright} {html.escape(app.config.author)} · "
        f'<a href="{licence}">MIT licence</a></p>'
    )


def describe_page(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    pathto = context["pathto"]
    title = app.env.titles[page].astext() if page in app.env.titles else context.get("title") or app.config.html_title
    if page == app.config.root_doc:
        context["title"] = title = f"{app.config.html_title}: {SUBTITLE}"
        context["docstitle"] = ""
    about = description(doctree) if doctree is not None else GENERATED.get(page, app.config.html_title)
    picture = pathto("_static/" + PICTURE.name, resource=True)
    context["metatags"] = VIEWPORT.sub("", context.get("metatags", ""))
    context["metatags"] += tags(app, page, title, about, picture, context.get("pageurl") or "")
    context["theme_extra_footer"] = footer(app, pathto("_static/LICENSE.txt", resource=True))
    context["root_title"] = HOME


def finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    out, config = Path(app.outdir), app.config
    shutil.copy(PICTURE, out / "_static")
    shutil.copy(ROOT / "LICENSE", out / "_static" / "LICENSE.txt")
    for file in out.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        if first := VIEWPORT.search(text):  # the theme and the template below it write one each
            file.write_text(text[: first.end()] + VIEWPORT.sub("", text[first.end() :]), encoding="utf-8")
    home = f"{config.root_doc}.html"
    (out / "404.html").write_text(
        NOT_FOUND.format(
            title=config.html_title,
            home=HOME.lower(),
            page=home,
            book=home.partition("/")[0],
            site=config.html_baseurl.rstrip("/") + "/" if config.html_baseurl else "../",
        ),
        encoding="utf-8",
    )
    if config.root_doc != "index":  # whoever passes the book on passes on the address of the redirect
        about = description(app.env.get_doctree(config.root_doc))
        url = urljoin(config.html_baseurl.rstrip("/") + "/", home) if config.html_baseurl else ""
        head = tags(app, config.root_doc, f"{config.html_title}: {SUBTITLE}", about, f"_static/{PICTURE.name}", url)
        redirect = out / "index.html"
        text = redirect.read_text(encoding="utf-8")
        redirect.write_text(text.replace("</head>", f"{head.lstrip()}</head>", 1), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", configure)
    app.connect("html-page-context", describe_page, priority=900)  # after the theme has filled in its own
    app.connect("build-finished", finish, priority=650)  # after the redirect is written, before the check
    return {"parallel_read_safe": True, "parallel_write_safe": True}
