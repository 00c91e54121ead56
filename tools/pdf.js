/* Draw a figure smaller where it then fits on the page on which its text ends, instead of leaving the rest of it empty.

On the screen pdf.css sets every chapter in columns of the size of a page, by the same rules for what stays together: a
column is a page, and what is empty below its last line would be empty on paper. */

addEventListener("load", () => {
  const SMALLEST = 0.7; // of its size: what is written in a figure can still be read
  const SPACE = 36; // between the text and the figure, in px
  const { width: WIDTH, height: HEIGHT } = document.querySelector("nav").getBoundingClientRect();

  /** The page of the chapter on which a box ends, and how far down. */
  const place = (box, chapter) => {
    const last = [...box.getClientRects()].at(-1);
    const corner = chapter.getBoundingClientRect();
    return {
      page: Math.floor((last.left - corner.left + 1) / WIDTH),
      bottom: last.bottom - corner.top,
      heading: /^H/.test(box.tagName),
    };
  };

  for (const chapter of document.querySelectorAll("article")) {
    const boxes = [...chapter.querySelectorAll(":is(p, pre, h1, h2, h3, h4, tr, div.math):not(figure *), figure")];
    for (const [i, figure] of boxes.entries()) {
      const picture = figure.querySelector(":scope > img");
      if (!picture) continue;
      const { page, bottom } = place(figure, chapter);
      const before = boxes.slice(0, i).map((box) => place(box, chapter));
      if (before.some((box) => box.page === page && !box.heading)) continue; // it is not the first on its page
      const end = Math.max(0, ...before.filter((box) => box.page === page - 1).map((box) => box.bottom));
      const height = picture.getBoundingClientRect().height;
      const smaller = height - (bottom + SPACE - (HEIGHT - end));
      if (page === 0 || smaller >= height || smaller < SMALLEST * height) continue;
      picture.style.maxHeight = `${smaller}px`;
      if (place(figure, chapter).page === page) picture.style.maxHeight = "";
    }
  }
});
