"use strict";

// Runs in a worker, behind the shim. A page makes one worker for each run: stopping it stops Python, and its memory is
// given back.

const PRINTED_LIMIT = 20000;

onmessage = async ({ data }) => {
  try {
    postMessage(data.parts ? await prepare(data.parts) : await run(data));
  } catch (error) {
    postMessage({ failed: String(error) });
  }
};

const unpacked = async (base64) => {
  const bytes = Uint8Array.fromBase64?.(base64) ?? Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
};

const prepare = async ({ python, library, book }) => ({
  module: await WebAssembly.compile(await unpacked(python)),
  library: await unpacked(library),
  book: await unpacked(book),
});

async function run({ module, library, book, request }) {
  const { ConsoleStdout, File, OpenFile, PreopenDirectory, WASI } = Shim;
  const decoder = new TextDecoder();
  let room = PRINTED_LIMIT;
  const console = new ConsoleStdout((bytes) => {
    if (room <= 0) return;
    const printed = decoder.decode(bytes, { stream: true });
    room -= printed.length;
    postMessage({ printed: room > 0 ? printed : `${printed.slice(0, room + printed.length)}\n… and more` });
  });
  const readonly = { readonly: true };
  const temporary = new PreopenDirectory(
    "/tmp",
    new Map([["request.json", new File(new TextEncoder().encode(JSON.stringify(request)))]]),
  );
  const files = [
    new OpenFile(new File([])),
    console,
    console,
    new PreopenDirectory(
      "/usr/local/lib",
      new Map([
        ["python315.zip", new File(library, readonly)],
        ["book.zip", new File(book, readonly)],
      ]),
    ),
    temporary,
  ];
  const start = "import sys; sys.path.insert(0, '/usr/local/lib/book.zip'); import practice; practice.main()";
  const wasi = new WASI(["/usr/local/bin/python.wasm", "-c", start], ["TMPDIR=/tmp"], files, { debug: false });
  const host = { call: () => -1 };
  const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wasi.wasiImport, host });
  wasi.inst = instance;
  instance.exports._initialize?.();
  instance.exports.run();
  const said = temporary.dir.contents.get("said.json");
  return said ? { said: JSON.parse(new TextDecoder().decode(said.data)) } : { failed: "Python ended early." };
}
