// Files that are chosen, dropped on the page or pasted.

export class Files {
  #input;
  #forDropped = false;

  /** parts: {input, curtain}: the file input, and what is shown while files are dragged over the page. */
  constructor({ input, curtain }, { open, sendAgain }) {
    this.#input = input;
    const take = (file) => file && open(file);
    input.addEventListener("change", () => {
      const [file] = input.files;
      input.value = "";
      if (this.#forDropped && file) sendAgain(file);
      else take(file);
    });
    addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      curtain.hidden = false;
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) curtain.hidden = true;
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      curtain.hidden = true;
      take(event.dataTransfer.files[0]);
    });
    addEventListener("paste", ({ clipboardData }) => take(clipboardData?.files[0]));
  }

  /** Let the user choose one. forDropped: for the medium that the server no longer has. */
  choose({ forDropped = false } = {}) {
    this.#forDropped = forDropped;
    this.#input.click();
  }
}
