// Numbers as people read them, with a true minus sign.

/** 0.8724 as "87.2%", without rounding to a certainty that is none. */
export function percent(share, digits = 1) {
  const text = (100 * share).toFixed(digits);
  if (Number(text) === 100 && share < 1) return `over ${(100 - 10 ** -digits).toFixed(digits)}%`;
  return `${minus(text)}%`;
}

/** 1.234 as "+1.23". */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value > 0 ? "+" : "−") + text;
}

/** −1.234 as "−1.23". */
export function number(value, digits = 2) {
  return minus(value.toFixed(digits));
}

/** 0.0123 as "12 ms", 3.2 as "3.2 s". */
export function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  const ms = 1000 * seconds;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** 12345 as "12,345". */
export function count(value) {
  return value.toLocaleString("en");
}

function minus(text) {
  return text.replace("-", "−");
}
