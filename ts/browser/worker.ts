/** The script of a model's workers. */
import { workerScope } from "./platform";
import { serve } from "./thread";

serve(workerScope());
