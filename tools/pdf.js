/* Fit the figures to the pages of the PDF, and number its contents, before Chromium prints it.

On the screen pdf.css sets every chapter in columns of the size of a page, by the same rules for what stays together: so
the place of a column is the number of a page, and what is empty there is empty on paper. */

addEventListener("load", () => {
  const SMALLEST = 0.68; // of its size: a figure that is drawn smaller cannot be read

  /** The page of the chapter on which a box begins, and where it ends there. */
  const place = (element, chapter) => {
    const box = [...element.getClientRects()], corner = chapter.getBoundingClientRect();
    const first = box[0], last = box[box.length - 1];
    return { page: Math.floor((first.left - corner.left + 1) / WIDTH), top: first.top - corner.top, bottom: last.bottom - corner.top };
  };

  const { width: WIDTH, height: HEIGHT } = document.querySelector("nav").getBoundingClientRect(); // of a page's text
  const BLOCKS = "p, li, pre, h1, h2, h3, h4, tr, div.math, figure";
  for (const chapter of document.querySelectorAll("article")) {
    for (const figure of chapter.querySelectorAll("figure:has(> img)")) {
      const at = place(figure, chapter);
      if (at.page === 0) continue;
      const before = [...chapter.querySelectorAll(BLOCKS)].filter((block) => block.compareDocumentPosition(figure) & Node.DOCUMENT_POSITION_FOLLOWING && !block.contains(figure) && block.getClientRects().length);
      const places = before.map((block) => place(block, chapter));
      if (places.some(({ page, top }, i) => page === at.page && !/^H/.test(before[i].tagName))) continue; // not the page's first
      const end = Math.max(0, ...places.filter(({ page }) => page === at.page - 1).map(({ bottom }) => bottom));
      const picture = figure.querySelector("img"), height = picture.getBoundingClientRect().height;
      const excess = at.bottom - (HEIGHT - end);
      if (excess < 0 || height - excess < SMALLEST * height) continue;
      picture.style.maxHeight = `${height - excess - 12}px`;
      if (place(figure, chapter).page === at.page) picture.style.maxHeight = "";
    }
  }
});
