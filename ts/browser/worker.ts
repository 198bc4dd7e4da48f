/** The script of a model's worker. */
import type { WorkerScope } from "./platform";
import { serve } from "./thread";

serve(globalThis as unknown as WorkerScope);
