"use strict";

// Python in the page: loaded once, from the folder of this script, and run in workers. What the engine is, only this
// file and worker.js know.
window.bookPython = (() => {
  const base = document.currentScript.src.replace(/[^/]*$/, "");
  const received = {};
  window.practicePart = (name, text) => (received[name] = text);

  const load = (file) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = base + file;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${file} could not be loaded`));
      document.head.append(script);
      script.remove(); // it is loaded all the same
    });

  const worker = (source) => {
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const made = new Worker(address);
    URL.revokeObjectURL(address);
    return made;
  };

  // Sends one message; resolves with the answer, and hands over what is printed before it.
  const ask = (to, message, print) =>
    new Promise((resolve, reject) => {
      to.onmessage = ({ data }) => {
        if (data.printed) print(data.printed);
        else if (data.failed) reject(new Error(data.failed));
        else resolve(data);
      };
      to.onerror = (event) => reject(new Error(event.message));
      to.postMessage(message);
    });

  const start = async (files) => {
    await Promise.all(files.map(load));
    const { python, library, book } = received;
    const packed = new Response(
      new Blob([Uint8Array.from(atob(received.worker), (letter) => letter.charCodeAt(0))])
        .stream()
        .pipeThrough(new DecompressionStream("gzip")),
    );
    const source = await packed.text();
    for (const name of Object.keys(received)) delete received[name]; // 35 MB of text
    const first = worker(source);
    const engine = await ask(first, { parts: { python, library, book } });
    first.terminate();
    return { source, engine };
  };

  let started;
  const prepare = (files) =>
    (started ??= start(files).catch((error) => {
      started = undefined; // another try may succeed
      throw error;
    }));

  // Judges answers, each {before, answer, call}, and hands over what they print; `stop` ends it at once.
  const run = (files, request, print) => {
    let current;
    let stop;
    const stopped = new Promise((resolve) => {
      stop = () => {
        ended = true;
        resolve({ stopped: true });
      };
    });
    let ended = false;
    const judged = prepare(files).then(({ source, engine }) => {
      if (ended) return { stopped: true }; // while the engine was being loaded
      current = worker(source);
      return ask(current, { ...engine, request }, print);
    });
    const done = Promise.race([judged, stopped]).finally(() => current?.terminate());
    return { done, stop };
  };

  return { prepare, run };
})();
