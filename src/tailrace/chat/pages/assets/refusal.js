// What a server says when it does not do what it was asked.

/** `status` is HTTP's, `code` the server's word for programs, `problem` all that it said. */
export class Refusal extends Error {
  constructor(status, problem, retryAfter = null) {
    super(words(problem.detail) ?? `the server answered with status ${status}`);
    this.name = "Refusal";
    this.status = status;
    this.code = problem.code ?? "";
    this.problem = problem;
    this.retryAfter = retryAfter; // seconds, if the server named them
  }

  static async of(response) {
    const problem = await response.json().catch(() => null);
    const wait = Number.parseFloat(response.headers.get("retry-after"));
    return new Refusal(response.status, problem ?? {}, Number.isFinite(wait) ? wait : null);
  }
}

/** `detail` is a sentence, or a list of what is wrong with each field. */
function words(detail) {
  if (Array.isArray(detail)) return detail.map((one) => `${one.loc?.at(-1)}: ${one.msg}`).join("; ");
  return typeof detail === "string" ? detail : undefined;
}
