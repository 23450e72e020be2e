// The JavaScript client at a short address. Its modules import each other, so they have one folder.
export * from "./js/tailrace.js";
