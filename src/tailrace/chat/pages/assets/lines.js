// Lines of text from bytes that come in any pieces.

export class Lines {
  #decoder = new TextDecoder();
  #rest = ""; // not a line yet

  /** The lines that these bytes end, without those that are blank. */
  push(bytes) {
    // A letter that was cut in half stays in the decoder, a line that was cut stays here.
    const parts = this.#decoder.decode(bytes, { stream: true }).split("\n");
    parts[0] = this.#rest + parts[0];
    this.#rest = parts.pop();
    return parts.filter((line) => line.trim() !== "");
  }
}
