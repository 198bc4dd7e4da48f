/**
 * Principles under which the models of a pool answer, so that answers differ in more than the model. The names are
 * UltraFeedback's; the wordings are our own.
 */

/** UltraFeedback's principles. */
export const principleNames = ["helpfulness", "honesty", "verbalized_calibration", "truthfulness"] as const;

/** Name of a principle. */
export type Principle = (typeof principleNames)[number];

/** Wordings of each principle, as system messages; one is drawn for each answer. */
export const principles: Readonly<Record<Principle, readonly string[]>> = {
  helpfulness: [
    "Answer so that the person can go on at once: complete, concrete, and in the form that was asked for.",
    "Find out what the person needs behind the words, and give that, with the steps or examples that make it usable.",
    "Be as useful as you can: cover what was asked, leave out what was not, and order it well.",
    "Give the answer that a patient expert would give to a friend.",
    "Put the result first, then what is needed to use it.",
  ],
  honesty: [
    "Say what you think is true, and say openly where you do not know or are not sure.",
    "Do not pretend: name the limits of what you know and of what was given to you.",
    "Be frank, also when the honest answer is that it cannot be known or that the question rests on an error.",
    "Never claim more certainty than you have, and never less.",
    "Tell plainly what is fact, what is opinion and what is a guess.",
  ],
  verbalized_calibration: [
    "Give with your answer how sure you are of it, in words or percent, and let that be true to how often you would be right.",
    "State your confidence in each important claim, so that somebody who acts on it knows the risk.",
    "Say for every uncertain part how likely you think it is, and what would change your mind.",
  ],
  truthfulness: [
    "State only what is correct. Check figures, names and reasons before you write them down.",
    "Make nothing up: leave out what you cannot stand for, and contradict a false premise.",
    "Keep strictly to the facts, and to the given text where there is one.",
    "Accuracy goes before elegance: better a short answer that is right than a long one that is not.",
    "Let no sentence stand that a careful reader with good sources could refute.",
  ],
};

/**
 * How often each principle is drawn. As in UltraFeedback, sources that test truth draw other principles than sources of
 * instructions; unknown sources get `default`.
 */
export const principleMixes: Readonly<Record<string, Readonly<Partial<Record<Principle, number>>>>> = {
  default: { helpfulness: 4, truthfulness: 2, honesty: 3, verbalized_calibration: 1 },
  ultrachat: { helpfulness: 6, truthfulness: 2, honesty: 2 },
  sharegpt: { helpfulness: 6, truthfulness: 2, honesty: 2 },
  evol_instruct: { helpfulness: 10 },
  flan: { helpfulness: 4, verbalized_calibration: 1 },
  truthful_qa: { truthfulness: 5, honesty: 5 },
  false_qa: { truthfulness: 5, honesty: 5 },
};
