// The elements of the page by their ids.

export const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((one) => [one.id, one]));
