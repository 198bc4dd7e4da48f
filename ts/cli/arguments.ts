import { InvalidArgumentError } from "commander";

/** Reads a whole number of at least the minimum. */
export function wholeNumber(minimum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isSafeInteger(value) && value >= minimum) return value;
    throw new InvalidArgumentError(`It is not a whole number of at least ${minimum}.`);
  };
}

/** Reads a number between two limits, both allowed. */
export function numberBetween(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && value >= low && value <= high) return value;
    throw new InvalidArgumentError(`It is not a number from ${low} to ${high}.`);
  };
}
