export { offlineQuestions } from "./catalogue";
export { isOfflineName, offlineModel } from "./model";
