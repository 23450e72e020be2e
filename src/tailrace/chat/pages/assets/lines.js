// Decodes lines of text from bytes that arrive in any pieces.

export class Lines {
  #decoder = new TextDecoder();
  #rest = ""; // not a line yet

  /** Returns the lines that these bytes complete, without blank ones. */
  push(bytes) {
    // The decoder keeps an incomplete character, and this object keeps an incomplete line.
    const parts = this.#decoder.decode(bytes, { stream: true }).split("\n");
    parts[0] = this.#rest + parts[0];
    this.#rest = parts.pop();
    return parts.filter((line) => line.trim() !== "");
  }
}
