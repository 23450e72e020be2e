// The refusals of a server.

/** A refusal. `status` is the HTTP status, `code` is for programs, and `problem` is the whole answer. */
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

/** Returns one line for `detail`, which is a sentence or a list of mistakes in fields. */
function words(detail) {
  if (Array.isArray(detail)) return detail.map((one) => `${one.loc?.at(-1)}: ${one.msg}`).join("; ");
  return typeof detail === "string" ? detail : undefined;
}
